/* The RAM of a session on a 32 bit machine is what the table in the header says. */
#define FIELDGATE_LINK_IMPLEMENTATION
#define FIELDGATE_LINK_FREESTANDING
#include "../fieldgate_link.h"

_Static_assert(sizeof(void *) != 4 || sizeof(struct fieldgate_link) == EXPECTED, "the table in fieldgate_link.h is wrong");
