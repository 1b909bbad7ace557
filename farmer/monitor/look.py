"""The page's style sheet: light and dark by the reader's choice, from phone to desk."""

from typing import Final

_DARK: Final = """
--bg:#0d1117;--card:#151b23;--fg:#e6edf3;--mute:#8d98a5;--line:#262e38;--link:#7ab0ff;
--live:#60a5fa;--trash:#fbbf24;--reserved:#a78bfa;--kept:#586371;--free:#262e38;--gap:#7f1d1d;
--leaving:#2dd4bf;--shut:#f472b6;
--ok:#4ade80;--okbg:#11301f;--warn:#fbbf24;--warnbg:#3a2a0a;--bad:#f87171;--badbg:#3b1418
"""

_LIGHT: Final = """
--bg:#f5f6f8;--card:#fff;--fg:#14181f;--mute:#5c6673;--line:#e3e7ec;--link:#1d4ed8;
--live:#2563eb;--trash:#d97706;--reserved:#7c3aed;--kept:#a3adba;--free:#e3e7ec;--gap:#fca5a5;
--leaving:#0d9488;--shut:#be185d;
--ok:#166534;--okbg:#dcfce7;--warn:#92400e;--warnbg:#fef3c7;--bad:#991b1b;--badbg:#fee2e2
"""

STYLE: Final = (
    f"""
:root{{{_LIGHT}}}
@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}
"""
    + """
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font-variant-numeric:tabular-nums;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1100px;margin:0 auto;padding:20px 16px 40px}
header{display:flex;flex-wrap:wrap;gap:8px 16px;align-items:center;margin-bottom:16px}
h1{font-size:21px;margin:0;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:12.5px;margin:0 0 10px;color:var(--mute);font-weight:600;
text-transform:uppercase;letter-spacing:.05em}
a{color:var(--link)}
.pill{padding:2px 10px;border-radius:99px;font-weight:600;font-size:13px;white-space:nowrap}
.ok{color:var(--ok);background:var(--okbg)}
.warn{color:var(--warn);background:var(--warnbg)}
.bad{color:var(--bad);background:var(--badbg)}
.mute,.meta{color:var(--mute);font-size:13.5px}
.meta{display:flex;gap:4px 14px;flex-wrap:wrap}
.meta b{color:var(--fg);font-weight:600}
.note{display:flex;gap:4px 14px;flex-wrap:wrap;background:var(--warnbg);border-radius:12px;
padding:11px 16px;margin-bottom:12px}
.note b{color:var(--warn)}
.note div{flex:1 1 300px}
code{background:color-mix(in srgb,var(--mute) 15%,transparent);padding:1px 6px;
border-radius:5px;font:13px/1.5 ui-monospace,"DejaVu Sans Mono",monospace;
overflow-wrap:anywhere}
.grid{display:grid;gap:12px;grid-template-columns:repeat(12,minmax(0,1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;
padding:14px 16px;min-width:0}
.k{grid-column:span 3}.w6{grid-column:span 6}.w12{grid-column:span 12}
.v{font-size:23px;font-weight:650;letter-spacing:-.02em;line-height:1.25}
.v small{color:var(--mute);font-weight:500;font-size:16px}
.bar{display:block;width:100%;border-radius:8px;background:var(--free)}
rect.live,i.live{fill:var(--live);background:var(--live)}
rect.trash,i.trash{fill:var(--trash);background:var(--trash)}
rect.reserved,i.reserved{fill:var(--reserved);background:var(--reserved)}
rect.kept,i.kept{fill:var(--kept);background:var(--kept)}
rect.gap,i.gap{fill:var(--gap);background:var(--gap)}
rect.leaving,i.leaving{fill:var(--leaving);background:var(--leaving)}
rect.shut,i.shut{fill:var(--shut);background:var(--shut)}
rect.free,i.free{fill:var(--free);background:var(--free)}
ul.legend{list-style:none;margin:12px 0 0;padding:0}
.legend li{display:flex;gap:9px;align-items:center;padding:2px 0}
.legend i{width:11px;height:11px;border-radius:3px;flex:none;
outline:1px solid color-mix(in srgb,var(--mute) 40%,transparent)}
.legend span{flex:1}
.card p{margin:10px 0 0}
dl{display:grid;grid-template-columns:1fr auto;gap:5px 16px;margin:0}
dt{color:var(--mute)}dd{margin:0;text-align:right;font-weight:600}
dl.about{grid-template-columns:max-content 1fr}
.about dd{text-align:left;font-weight:400;min-width:0}
.wide{overflow-x:auto}
table{width:100%;border-collapse:collapse}
th{font-weight:600;color:var(--mute);font-size:13px;text-align:left}
th,td{padding:8px 14px 0 0;white-space:nowrap;vertical-align:top}
tr>:last-child{padding-right:0}
th,tbody tr:last-child td{padding-bottom:8px}
tbody:last-child tr:last-child td{padding-bottom:0}
tbody{border-top:1px solid var(--line)}
.r{text-align:right}
.where{white-space:normal;min-width:150px}
td.r:last-child{white-space:normal}
tbody .why td{white-space:normal;overflow-wrap:anywhere;padding-top:2px;color:var(--mute);
font-size:13.5px}
@media(max-width:760px){
main{padding:14px 10px 30px}.k{grid-column:span 6}.w6{grid-column:span 12}.v{font-size:20px}
dl.about{grid-template-columns:1fr;gap:0}.about dd{margin-bottom:9px}
table,tbody{display:block}
thead{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}
tbody{padding:10px 0}
tbody:first-of-type{border:0;padding-top:0}
tbody:last-child{padding-bottom:0}
tbody tr{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:6px 12px}
tbody tr:first-child td,tbody tr:last-child td{padding:0;white-space:normal;text-align:left}
tbody tr td:not([data-name]){grid-column:1/-1}
td[data-name]:before{content:attr(data-name);display:block;color:var(--mute);font-size:12.5px}
.why{margin-top:6px}
}
@media(max-width:380px){.k{grid-column:span 12}}
"""
)
