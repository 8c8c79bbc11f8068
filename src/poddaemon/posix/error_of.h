#ifndef POD_ERROR_OF_H
#define POD_ERROR_OF_H

// PM_ERR_* of an errno.
int pod_error_of(int e);

#endif
