/* Uses a library by references of all kinds. */
extern int live_numbers[], live_other;
int live_call(void), live_more(void), live_turned(void), live_chosen(void);

int *const user_constant = &live_numbers[2];
int (*user_functions[])(void) = {live_call, live_chosen, live_turned};

int user_sum(void)
{
    return live_more() + live_call() + live_other + *user_constant;
}

#ifdef MINE
extern __thread int live_mine;

int user_mine(void)
{
    return live_mine;
}
#endif
