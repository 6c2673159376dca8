/* What the libraries of the tests, and the guest that loads them, have in common. */

/* Of the image (tests/guests/src/bin/libraries.rs): notes an octet. */
void test_note(int octet);

extern int base_numbers[4];
extern int *base_pointer;
extern __thread int base_counter;
int base_add(int a, int b);
int base_count(void);
double middle_sum(double a, double b, double c, double d, double e, double f, double g, double h);
