# cmake -DNM=... -DTARGET=... -DLIST=... -P: fails if an object of LIST calls what only the library may
# call. LIST has lines "source_dir DIR", "exempt SOURCE", "object FILE".
cmake_minimum_required(VERSION 3.20)

# Without underscores in front and without what Windows adds to names. As forbid_raw_spawn.h has them;
# waits for one process (waitpid and its relatives) cannot be told from waits for any by a name.
set(names
    # POSIX
    "v?fork|Fork|libc_fork|rfork|pdfork|clone|clone2|clone3|execveat|fexecve|execvP|posix_spawnp?"
    "system|popen|wordexp|daemon|forkpty|wait|wait3"
    # Windows and its C runtime
    "w?exec(l|le|lp|lpe|v|ve|vp|vpe)|w?spawn(l|le|lp|lpe|v|ve|vp|vpe)|wsystem|wpopen"
    "CreateProcess(AsUser)?[AW]|CreateProcessWith(Logon|Token)W|ShellExecute(Ex)?[AW]|WinExec"
    # Libraries
    "uv_spawn|g_spawn_(async|sync|async_with_pipes|async_with_fds|async_with_pipes_and_fds)"
    "g_spawn_command_line_(sync|async)")
list(JOIN names "|" names)

file(STRINGS "${LIST}" lines)
set(objects)
set(exempt)
foreach(line IN LISTS lines)
    if(line MATCHES "^source_dir (.*)$")
        set(source_dir "${CMAKE_MATCH_1}")
    elseif(line MATCHES "^exempt (.+)$")
        list(APPEND exempt "${CMAKE_MATCH_1}")
    elseif(line MATCHES "^object (.+)$")
        list(APPEND objects "${CMAKE_MATCH_1}")
    endif()
endforeach()

# Whether the object is that of an exempt source that tells its reason still.
function(is_exempt object ret_exempt)
    string(REGEX REPLACE "[.](o|obj)$" "" stem "${object}")
    set(${ret_exempt} FALSE PARENT_SCOPE)
    foreach(source IN LISTS exempt)
        file(RELATIVE_PATH relative "${source_dir}" "${source}")
        string(REPLACE "../" "__/" relative "${relative}")
        string(REGEX REPLACE "^/|:" "" absolute "${source}")
        foreach(tail IN ITEMS "/${relative}" "/${absolute}")
            string(LENGTH "${stem}" stem_length)
            string(LENGTH "${tail}" tail_length)
            math(EXPR from "${stem_length} - ${tail_length}")
            if(from GREATER_EQUAL 0)
                string(SUBSTRING "${stem}" ${from} -1 end)
                if(end STREQUAL tail)
                    file(STRINGS "${source}" reason REGEX "PM_ALLOW_RAW_SPAWN:[ \t]*[^ \t]")
                    if(reason)
                        set(${ret_exempt} TRUE PARENT_SCOPE)
                    endif()
                    return()
                endif()
            endif()
        endforeach()
    endforeach()
endfunction()

set(defined)
set(found)
foreach(object IN LISTS objects)
    execute_process(
        COMMAND "${NM}" -P "${object}"
        OUTPUT_VARIABLE symbols
        ERROR_VARIABLE problem
        RESULT_VARIABLE result)
    if(NOT result EQUAL 0)
        message(FATAL_ERROR "${TARGET}: ${NM} cannot read ${object}: ${problem}")
    endif()
    string(REPLACE ";" "," symbols "${symbols}")
    string(REGEX MATCHALL "[^\n\r]+" symbols "${symbols}")
    foreach(symbol IN LISTS symbols)
        if(NOT symbol MATCHES "^([^ ]+) ([A-Za-z])")
            continue()
        endif()
        set(name "${CMAKE_MATCH_1}")
        set(kind "${CMAKE_MATCH_2}")
        string(REGEX REPLACE "^__imp_" "" plain "${name}")
        string(REGEX REPLACE "^_+|@.*$" "" plain "${plain}")
        if(NOT plain MATCHES "^(${names})$")
            continue()
        endif()
        if(kind MATCHES "[Uwv]")
            list(APPEND found "${plain}|${object}")
        elseif(kind MATCHES "[TDWVi]")
            list(APPEND defined "${plain}") # A function of the target's own has that name.
        endif()
    endforeach()
endforeach()

set(report "")
foreach(entry IN LISTS found)
    string(REGEX MATCH "^[^|]+" name "${entry}")
    string(REGEX REPLACE "^[^|]+[|]" "" object "${entry}")
    if(name IN_LIST defined)
        continue()
    endif()
    is_exempt("${object}" allowed)
    if(NOT allowed)
        string(APPEND report "\n  ${object} uses ${name}()")
    endif()
endforeach()
if(report)
    message(
        FATAL_ERROR
            "${TARGET} starts processes, or waits for any, past processmgr:${report}\n"
            "Use pm_spawn() and pm_process_wait() from <processmgr/processmgr.h>. If a source has to do it "
            "all the same: processmgr_forbid_raw_spawn(${TARGET} EXEMPT <source>), and in the source the "
            "reason: // PM_ALLOW_RAW_SPAWN: why")
endif()
