# The viewer's server. The HTTP library is compiled against the flags that Debian built it with:
# without them classes have another layout and the first request crashes.
find_package(PkgConfig REQUIRED)
find_package(ZLIB REQUIRED)
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)

triptych_library(insight_server
  SOURCES guarded_stream.cpp gzip.cpp http_rules.cpp http_server.cpp
  DEPENDS triptych::base PkgConfig::HTTPLIB
  PRIVATE ZLIB::ZLIB)
