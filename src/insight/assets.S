# The page's files as they stand in web/dist, found through -I.
    .section .rodata
    .macro asset symbol, file
    .global triptych_asset_\symbol
    .global triptych_asset_\symbol\()_end
triptych_asset_\symbol:
    .incbin "\file"
triptych_asset_\symbol\()_end:
    .byte 0
    .endm

    asset index_html, "index.html"
    asset app_js, "app.js"
    asset style_css, "style.css"
    asset icon_svg, "icon.svg"

    .section .note.GNU-stack, "", @progbits
