list(APPEND TRIPTYCH_DATA_SOURCES
  base64.cpp dataset.cpp loader.cpp packer.cpp pipeline.cpp qwen_processor.cpp record_file.cpp
  records.cpp row_balance.cpp row_stream.cpp size_cache.cpp stream_order.cpp worker_pool.cpp)
