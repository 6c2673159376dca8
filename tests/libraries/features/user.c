/* Uses provider.c: in its versions, by calls of all kinds, and with functions that stand before its own. */
int twice(int), oldest(int), unversioned(void), calls_hidden(void);
double summed(int count, ...);
__asm__(".symver oldest, twice@VERS_1");

int overridden(void) { return 20; }
int guarded(void) { return 30; }

int user_newest(void) { return twice(1); }
int user_oldest(void) { return oldest(1); }
int user_unversioned(void) { return unversioned(); }
int user_interposed(void) { return calls_hidden(); }
int user_guarded(void) { return guarded(); }
int user_summed(void) { return (int)summed(10, 1, 1., 2, 2., 3, 3., 4, 4., 5, 5., 6, 6., 7, 7., 8, 8., 9, 9., 10, 10.) % 1000003; }
