triptych_test(insight_server_test
  SOURCES http_rules_test.cpp http_server_test.cpp
  DEPENDS triptych::insight_server)
