/* Keeps data below the stack pointer, where no code for guest kernel mode may. */
int red_zone(int number);

int red_zone(int number)
{
    volatile int numbers[4] = {number, number, number, number};
    return numbers[0] + numbers[3];
}
