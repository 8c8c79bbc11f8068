// Folders with what is in them.
#ifndef RUNNER_TREE_H
#define RUNNER_TREE_H

// Removes one, or a file; links are removed, not followed. 0, also if there is none, or a negative
// uv error.
int tree_remove(const char *path);

#endif
