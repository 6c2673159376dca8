/* Is linked with a provider that has no versions yet. */
int twice(int);

int unversioned(void) { return twice(1); }
