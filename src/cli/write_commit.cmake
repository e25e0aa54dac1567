# cmake -DSOURCE=<folder> -DOUTPUT=<file> -P write_commit.cmake: rewrites OUTPUT only when the commit changed.
execute_process(COMMAND git describe --always --dirty=+ --abbrev=9 --exclude=*
  WORKING_DIRECTORY ${SOURCE} OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
  ERROR_QUIET RESULT_VARIABLE failed)
if(failed OR NOT commit)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT [[#include "cli/version_info.h"

namespace triptych::version_info {

const char* commit() { return "@commit@"; }

}  // namespace triptych::version_info
]] @ONLY)
