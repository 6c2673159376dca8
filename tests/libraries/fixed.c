/* Thread-local variables at fixed places (initial exec), and by descriptors. */
__thread int fixed_number __attribute__((tls_model("initial-exec"))) = 11;

int fixed_next(void)
{
    return ++fixed_number;
}
