# Cross build for Linux on arm64 with Debian's compilers. The programs run under qemu's user mode, in
# what ci/arm64-env prepares.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# By its path here, so that nothing has to be told to qemu, nor to the children of children.
set(pmi_sysroot /usr/aarch64-linux-gnu)
set(CMAKE_EXE_LINKER_FLAGS_INIT
    "-Wl,--dynamic-linker=${pmi_sysroot}/lib/ld-linux-aarch64.so.1,-rpath,${pmi_sysroot}/lib")

set(CMAKE_FIND_ROOT_PATH "${pmi_sysroot}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

get_filename_component(pmi_arm64_env "${CMAKE_CURRENT_LIST_DIR}/../ci/arm64-env" ABSOLUTE)
set(CMAKE_CROSSCOMPILING_EMULATOR "${pmi_arm64_env}")
