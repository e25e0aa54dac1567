#pragma once

#include <string>
#include <string_view>

namespace triptych {

/// NFC of well-formed UTF-8. Returns `text` itself when nothing changes (nearly always), else a
/// view of `storage`.
///
/// Characters younger than Unicode 9.0 stay as they are and compose with nothing: the reference's
/// normaliser has that version's tables, found by comparing all combining classes and compositions.
std::string_view to_nfc(std::string_view text, std::string& storage);

}  // namespace triptych
