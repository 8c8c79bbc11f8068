# Interface targets that carry compile settings, and the functions that make the library's targets.

# Warnings, feature macros, private include folders and sanitizers of everything in this project.
# -Wshadow is for C only: in C++ it objects to a function that is named like a struct.
add_library(pmi_flags INTERFACE)
target_compile_features(pmi_flags INTERFACE c_std_11)
if(CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
    target_compile_options(
        pmi_flags
        INTERFACE -Wall
                  -Wextra
                  -Wconversion
                  -Wvla
                  $<$<COMPILE_LANGUAGE:C>:-Wshadow>
                  $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes>
                  $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>)
    if(PROCESSMGR_WERROR)
        target_compile_options(pmi_flags INTERFACE -Werror)
    endif()
endif()
if(WIN32)
    target_compile_definitions(pmi_flags INTERFACE UNICODE _UNICODE _WIN32_WINNT=0x0A00
                                                   WIN32_LEAN_AND_MEAN)
elseif(APPLE)
    target_compile_definitions(pmi_flags INTERFACE _DARWIN_C_SOURCE)
elseif(CMAKE_SYSTEM_NAME MATCHES "BSD|DragonFly")
    target_compile_definitions(pmi_flags INTERFACE __BSD_VISIBLE=1)
else()
    target_compile_definitions(pmi_flags INTERFACE _GNU_SOURCE)
    if(CMAKE_SIZEOF_VOID_P EQUAL 4) # Large inode numbers are an error otherwise.
        target_compile_definitions(pmi_flags INTERFACE _FILE_OFFSET_BITS=64)
    endif()
endif()

# Sanitizers have to reach the link of every program that takes the static library.
add_library(pmi_sanitize INTERFACE)
set(PMI_SANITIZE_LINK_FLAG "")
if(PROCESSMGR_SANITIZE)
    string(REPLACE ";" "," pmi_sanitize_list "${PROCESSMGR_SANITIZE}")
    target_compile_options(pmi_sanitize INTERFACE -fsanitize=${pmi_sanitize_list}
                                                  -fno-omit-frame-pointer)
    if("undefined" IN_LIST PROCESSMGR_SANITIZE)
        target_compile_options(pmi_sanitize INTERFACE -fno-sanitize-recover=undefined)
        # gcc has no such check. In C alone: headers of C++ convert as they like.
        if(CMAKE_C_COMPILER_ID MATCHES "Clang")
            target_compile_options(
                pmi_sanitize
                INTERFACE
                    $<$<COMPILE_LANGUAGE:C>:-fsanitize=implicit-conversion>
                    $<$<COMPILE_LANGUAGE:C>:-fno-sanitize-recover=implicit-conversion>)
        endif()
    endif()
    set(PMI_SANITIZE_LINK_FLAG -fsanitize=${pmi_sanitize_list})
    target_link_options(pmi_sanitize INTERFACE ${PMI_SANITIZE_LINK_FLAG})
endif()
target_link_libraries(pmi_flags INTERFACE pmi_sanitize)

# The guard: a raw fork, exec, system, CreateProcess ... does not compile. A target or a source opts
# out with the compile definition PM_ALLOW_RAW_SPAWN.
set(PMI_GUARD_HEADER "${CMAKE_CURRENT_SOURCE_DIR}/include/processmgr/forbid_raw_spawn.h")
add_library(pmi_guard INTERFACE)
if(CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
    target_compile_options(pmi_guard INTERFACE "SHELL:-include \"${PMI_GUARD_HEADER}\"")
endif()

# Folders of the private headers: "backend.h", "core/....h", "pmi_config.h", and os.h of the backend
# that is built.
if(WIN32)
    set(pmi_backend_dir "${CMAKE_CURRENT_SOURCE_DIR}/src/win32")
else()
    set(pmi_backend_dir "${CMAKE_CURRENT_SOURCE_DIR}/src/posix")
endif()
set(PMI_GENERATED_DIR "${CMAKE_CURRENT_BINARY_DIR}/generated")
set(PMI_PRIVATE_INCLUDE_DIRS "${CMAKE_CURRENT_SOURCE_DIR}/src" "${pmi_backend_dir}"
                             "${PMI_GENERATED_DIR}")

# pmi_add_objects(NAME SHARED_OBJECTS <ON|OFF>): the object library NAME, made of two: NAME_core,
# compiled with the guard, and NAME_backend, the only place where raw spawning is the job.
function(pmi_add_objects name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "SHARED_OBJECTS" "")
    foreach(part IN ITEMS core backend)
        add_library(${name}_${part} OBJECT)
        target_include_directories(
            ${name}_${part} PUBLIC "${PROJECT_SOURCE_DIR}/include"
                                   "$<BUILD_INTERFACE:${PMI_PRIVATE_INCLUDE_DIRS}>")
        set_target_properties(
            ${name}_${part}
            PROPERTIES C_STANDARD 11
                       C_STANDARD_REQUIRED ON
                       C_EXTENSIONS OFF
                       C_VISIBILITY_PRESET hidden
                       POSITION_INDEPENDENT_CODE ON)
        if(arg_SHARED_OBJECTS)
            target_compile_definitions(${name}_${part} PRIVATE PM_BUILDING_SHARED)
        endif()
        target_link_libraries(${name}_${part} PRIVATE pmi_flags)
        if(NOT WIN32)
            target_link_libraries(${name}_${part} PRIVATE Threads::Threads)
        endif()
    endforeach()
    list(TRANSFORM PMI_CORE_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/" OUTPUT_VARIABLE core_sources)
    list(TRANSFORM PMI_BACKEND_SOURCES PREPEND "${PROJECT_SOURCE_DIR}/"
                                       OUTPUT_VARIABLE backend_sources)
    target_sources(${name}_core PRIVATE ${core_sources})
    target_sources(${name}_backend PRIVATE ${backend_sources})
    target_link_libraries(${name}_core PRIVATE pmi_guard)
endfunction()

# pmi_setup_library(NAME OBJECTS): what the static and the shared library have in common.
function(pmi_setup_library name objects)
    target_sources(${name} PRIVATE $<TARGET_OBJECTS:${objects}_core>
                                   $<TARGET_OBJECTS:${objects}_backend>)
    target_include_directories(
        ${name} PUBLIC "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>"
                       "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
    target_compile_features(${name} INTERFACE c_std_11)
    set_target_properties(${name} PROPERTIES OUTPUT_NAME processmgr LINKER_LANGUAGE C)
    target_link_libraries(${name} PRIVATE ${PMI_SYSTEM_LIBRARIES})
    target_link_libraries(${name} PUBLIC "$<BUILD_INTERFACE:pmi_sanitize>")
    # Whoever links an instrumented library needs the sanitizer's runtime first.
    target_link_options(${name} INTERFACE "$<INSTALL_INTERFACE:${PMI_SANITIZE_LINK_FLAG}>")
endfunction()

# pmi_setup_program(NAME): settings of a program of this project (launcher, example, test).
function(pmi_setup_program name)
    set_target_properties(${name} PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
    target_link_libraries(${name} PRIVATE pmi_flags pmi_guard)
    if(MINGW)
        target_link_options(${name} PRIVATE -static)
    endif()
endfunction()
