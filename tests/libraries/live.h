/* The symbols of `live` that others use. */
extern int live_numbers[];
int live_version(void);
int live_version_again(void);
int live_mine(void);
int live_count(void);
int live_counter(void);
/* Takes its time. */
int live_spin(int rounds);
/* Calls a function, and says its own version if that returns 0. */
int live_call(int (*function)(void));
/* An address in its text, not that of an entry. */
const void *live_inside(void);
int live_chosen(void);
