// The C headers of the pod protocol, for C++ tests.
#ifndef PM_TEST_POD_HEADERS_H
#define PM_TEST_POD_HEADERS_H

extern "C" {
#include <processmgr/processmgr.h>

#include "pod/client.h"
#include "pod/config.h"
#include "pod/proof.h"
#include "pod/ring.h"
#include "pod/rules.h"
#include "pod/tomb.h"
#include "pod/tracker.h"
#include "pod/wire.h"
}

#endif
