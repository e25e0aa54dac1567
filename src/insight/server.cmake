# The viewer's server. The HTTP library is compiled against the flags that Debian built it with:
# without them classes have another layout and the first request crashes.
find_package(PkgConfig REQUIRED)
find_package(ZLIB REQUIRED)
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)

triptych_library(insight_server
  SOURCES assets.S assets.cpp guarded_stream.cpp gzip.cpp http_rules.cpp http_server.cpp live_events.cpp
          metrics_tail.cpp report_events.cpp saved_report.cpp viewer.cpp viewer_routes.cpp
  DEPENDS triptych::insight PkgConfig::HTTPLIB
  PRIVATE ZLIB::ZLIB)
# The page as npm built it; it is committed, so that building this needs no Node (web/README.md).
set(web_dist ${CMAKE_SOURCE_DIR}/web/dist)
set_source_files_properties(assets.S PROPERTIES
  COMPILE_OPTIONS "-I${web_dist}"
  OBJECT_DEPENDS "${web_dist}/index.html;${web_dist}/app.js;${web_dist}/style.css;${web_dist}/icon.svg")
