list(APPEND TRIPTYCH_DATA_SOURCES
  base64.cpp dataset.cpp loader.cpp packer.cpp pipeline.cpp qwen_processor.cpp record_file.cpp
  record_errors.cpp record_media.cpp records.cpp row_balance.cpp row_stream.cpp size_cache.cpp step_layout.cpp
  step_rows.cpp stream_order.cpp worker_pool.cpp)
