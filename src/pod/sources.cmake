# Relative to the source root. Portable, and without any library.
set(PMI_POD_SOURCES
    src/pod/client.c
    src/pod/config.c
    src/pod/proof.c
    src/pod/ring.c
    src/pod/rules.c
    src/pod/tomb.c
    src/pod/tracker.c
    src/pod/wire.c)
