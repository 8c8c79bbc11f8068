# The launcher. The program processmgr-launcher is main.c over the static library; the rest is part of
# the library, because any program can be its own launcher.
set(PMI_LAUNCHER_SOURCES src/launcher/main.c)
list(APPEND PMI_BACKEND_SOURCES src/launcher/launch_plan.c src/launcher/launcher.c
     src/launcher/stub.c)
