// The C headers that C++ tests use: the public one and those of the pure parts of the core. Headers
// of a backend are not here: a test that needs one names it.
#ifndef PM_TEST_C_HEADERS_H
#define PM_TEST_C_HEADERS_H

extern "C" {
#include <processmgr/processmgr.h>

#include "core/cmdline.h"
#include "core/env.h"
#include "core/identity.h"
#include "core/record.h"
#include "core/strbuf.h"
#include "core/utf.h"
}

#endif
