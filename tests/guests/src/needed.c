/* References to an object that the image was linked with, as C compiles them. */

extern int base_numbers[4];
int base_add(int a, int b);

int needed_third_number(void)
{
    return base_numbers[2];
}

void *needed_base_add(void)
{
    return base_add;
}
