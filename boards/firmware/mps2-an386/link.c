#define FIELDGATE_LINK_IMPLEMENTATION
#include "../fieldgate_link.h"
