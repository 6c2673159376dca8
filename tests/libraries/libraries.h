/* Declarations common to the libraries of the tests and to the guest that loads them. */

/* Notes an octet. Defined by the image (tests/guests/src/bin/libraries.rs). */
void test_note(int octet);

extern int base_numbers[4];
extern int *base_pointer;
extern __thread int base_counter;
int base_add(int a, int b);
int base_count(void);
double middle_sum(double a, double b, double c, double d, double e, double f, double g, double h);
