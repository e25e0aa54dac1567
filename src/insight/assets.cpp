#include "insight/assets.h"

#include <array>
#include <utility>

// Laid down by assets.S.
extern "C" {
extern const char triptych_asset_index_html[], triptych_asset_index_html_end[];
extern const char triptych_asset_app_js[], triptych_asset_app_js_end[];
extern const char triptych_asset_style_css[], triptych_asset_style_css_end[];
extern const char triptych_asset_icon_svg[], triptych_asset_icon_svg_end[];
}

namespace triptych::insight {
namespace {

std::string_view between(const char* begin, const char* end) {
  return {begin, static_cast<size_t>(end - begin)};
}

}  // namespace

std::string_view page_asset(std::string_view name) {
  static const std::array<std::pair<std::string_view, std::string_view>, 4> assets = {{
      {"index.html", between(triptych_asset_index_html, triptych_asset_index_html_end)},
      {"app.js", between(triptych_asset_app_js, triptych_asset_app_js_end)},
      {"style.css", between(triptych_asset_style_css, triptych_asset_style_css_end)},
      {"icon.svg", between(triptych_asset_icon_svg, triptych_asset_icon_svg_end)},
  }};
  for (const auto& [known, bytes] : assets) {
    if (known == name) return bytes;
  }
  return {};
}

}  // namespace triptych::insight
