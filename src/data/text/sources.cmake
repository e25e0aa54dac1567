list(APPEND TRIPTYCH_DATA_SOURCES
  text/added_tokens.cpp
  text/bpe.cpp
  text/bpe_trainer.cpp
  text/byte_alphabet.cpp
  text/char_class.cpp
  text/chat_template.cpp
  text/encode_conversation.cpp
  text/known_templates.cpp
  text/normalizer.cpp
  text/piece_pattern.cpp
  text/piece_pattern_regex.cpp
  text/tokenizer.cpp
  text/tokenizer_folder.cpp
  text/tokenizer_json.cpp
  text/vocabulary_builder.cpp)
