@echo off
rem Runs the packaged tests (ci/package): prints the counts, ends with 1 on a failure.
rem
rem   run-tests.cmd [NAME...]     all programs of tests.txt without an argument
rem
rem The output of each program is in results\NAME.log. A program that hangs is not ended here.
setlocal
cd /d "%~dp0"
if not exist results mkdir results
rem Nothing of the machine that built them is looked for.
set PM_TEST_PACKAGE=%~dp0.
set passed=0
set failed=0
set skipped=0
if "%~1"=="" for /f "tokens=1" %%n in (tests.txt) do call :one %%n
for %%n in (%*) do call :one %%n
echo %passed% passed, %failed% failed, %skipped% skipped
if not %failed%==0 exit /b 1
if %passed%==0 exit /b 1
exit /b 0

:one
set log=results\%1.log
set name=%1
rem Only the fuzz targets read these.
set PM_FUZZ_CORPUS=corpus\%name:fuzz_=%
set PM_FUZZ_INPUT=results\%1.input
bin\%1.exe --gtest_output=json:results\%1.json > %log% 2>&1
set rc=%errorlevel%
set p=0
set f=0
set s=0
rem The last lines of GoogleTest: "[  PASSED  ] 46 tests.", "[  FAILED  ] 1 test, listed below:".
for /f "tokens=4,5" %%a in ('find "[  PASSED  ] " ^< %log%') do call :count p %%a %%b
for /f "tokens=4,5" %%a in ('find "[  FAILED  ] " ^< %log%') do call :count f %%a %%b
for /f "tokens=4,5" %%a in ('find "[  SKIPPED ] " ^< %log%') do call :count s %%a %%b
rem A program that crashed has no last lines.
if not %rc%==0 if %f%==0 set f=1
if %rc%==0 if %p%==0 if %s%==0 set f=1
set /a passed+=p
set /a failed+=f
set /a skipped+=s
echo   %1: %p% passed, %f% failed, %s% skipped, exit code %rc%
if not %s%==0 find "[  SKIPPED ] " < %log%
if not %f%==0 type %log%
exit /b 0

rem count VARIABLE NUMBER WORD: sets it where WORD says that this line has a number.
:count
if "%~3"=="test" set %1=%2
if "%~3"=="tests" set %1=%2
if "%~3"=="test." set %1=%2
if "%~3"=="tests." set %1=%2
exit /b 0
