// Guards that a fault build can take away one by one, to prove that a test notices (tests/fault).
// In every other build PMI_WITHOUT() is the constant false.
#ifndef PMI_GUARDS_H
#define PMI_GUARDS_H

#ifdef PMI_FAULT_BUILD
#include <stdbool.h>
bool pmi_fault_without(const char *guard);
#define PMI_WITHOUT(guard) pmi_fault_without(guard)
#else
#define PMI_WITHOUT(guard) false
#endif

#endif
