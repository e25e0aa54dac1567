#pragma once

#include <string_view>

namespace triptych::insight {

/// A file of the viewer's page, built into this program (web/dist); "" for other names.
/// Names: index.html, app.js, style.css, icon.svg.
std::string_view page_asset(std::string_view name);

}  // namespace triptych::insight
