"""How the page looks: in light and dark, on a wide screen, on a phone and on paper."""

from __future__ import annotations

from typing import Final

SERIES: Final = 4
"""Colours that bars may be made of."""

CSS: Final = """
:root{color-scheme:light dark;--paper:#fdfdfb;--card:#f4f4ef;--ink:#1d2126;--soft:#5b626b;--line:#dfdfd8;--link:#22578c;
--s0:#3a6ea8;--s1:#c6831f;--s2:#4b9a86;--s3:#a55a7c;--track:#e9e9e3;--warn:#a3341f;--warn-paper:#fbeee9;--good:#2c6e49;
--red:#c0453a;--green:#3f8f52;--blue:#3a6ea8}
@media screen and (prefers-color-scheme:dark){:root{--paper:#15181c;--card:#1e2227;--ink:#e6e7e4;--soft:#a2a9b1;
--line:#33383f;--link:#8fbbe8;--s0:#6c9fd6;--s1:#e0aa5a;--s2:#6bb9a4;--s3:#cf86a8;--track:#2a2f36;--warn:#f0a08c;
--warn-paper:#33201c;--good:#83c79f;--red:#e0786e;--green:#74bd86;--blue:#6c9fd6}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0 auto;padding:3rem 1rem 4rem;max-width:72rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif;
font-variant-numeric:tabular-nums lining-nums;overflow-wrap:anywhere}
a{color:var(--link);text-underline-offset:.2em;text-decoration-thickness:1px}
:focus-visible{outline:2px solid var(--link);outline-offset:3px}
h1,h2,h3,p,dl,dd,figure,table,ol,ul{margin:0;padding:0}
h1{font-size:clamp(1.75rem,1.3rem + 2vw,2.5rem);line-height:1.15;font-weight:650;letter-spacing:-.02em}
h2{font-size:1.375rem;line-height:1.25;font-weight:650;letter-spacing:-.01em;margin-bottom:1rem}
h3,caption{font-size:1rem;line-height:1.4;font-weight:650;text-align:left}
h3{margin:2rem 0 .75rem}
section{margin-top:4rem;scroll-margin-top:1rem}
section>p{max-width:44rem;text-wrap:pretty}
p+p,p+.scroll,.scroll+p,p+ul,p+.wide,p+.dense,p+.sheets{margin-top:1rem}
.soft{color:var(--soft)}
.lead{margin-top:.5rem;color:var(--soft)}
code{font:.9em/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
ul.plain{list-style:none}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:1.5rem 2rem;margin-top:2rem;
padding:1.25rem 0;border:solid var(--line);border-width:1px 0}
.figures div{display:flex;flex-direction:column-reverse;justify-content:flex-end}
.figures dt{color:var(--soft);font-size:.875rem}
.figures dd{font-size:1.625rem;line-height:1.3;font-weight:600;letter-spacing:-.01em}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;margin-top:1.25rem;font-size:.9375rem;list-style:none}
.note{margin-top:1.5rem;padding:.875rem 1.125rem;border-left:4px solid var(--line);background:var(--card);
border-radius:0 .375rem .375rem 0}
.note p{max-width:none}
.note.bad{border-color:var(--warn);background:var(--warn-paper)}
.note.bad strong,.tag{color:var(--warn)}
.note.good{border-color:var(--good)}
.note ul{padding-left:1.25rem}
.note strong{font-weight:650}
.scroll{overflow-x:auto;background:linear-gradient(90deg,var(--paper) 30%,transparent) 0 0/3rem 100% local,
linear-gradient(270deg,var(--paper) 30%,transparent) 100% 0/3rem 100% local,
linear-gradient(90deg,var(--line),transparent) 0 0/.75rem 100% scroll,
linear-gradient(270deg,var(--line),transparent) 100% 0/.75rem 100% scroll;background-repeat:no-repeat}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{padding:.4375rem 0 .4375rem 1.5rem;text-align:right;vertical-align:baseline;font-weight:400;white-space:nowrap}
th:first-child,td:first-child{padding-left:0;text-align:left;white-space:normal}
th.text,td.text{text-align:left;white-space:normal}
thead th{color:var(--soft);font-size:.8125rem;vertical-align:bottom;border-bottom:1px solid var(--line)}
tbody tr+tr>*{border-top:1px solid var(--line)}
tfoot>tr>*{border-top:2px solid var(--line);font-weight:650}
.scroll th:first-child{min-width:7rem}
.scroll td.text{min-width:8rem}
.scroll .ranges th,.scroll .hist th,.scroll .ranges td{min-width:0;white-space:nowrap}
td code{white-space:nowrap}
.key{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;list-style:none;font-size:.9375rem;margin:1.25rem 0}
.swatch::before{content:"";display:inline-block;width:.7em;height:.7em;margin-right:.45em;border-radius:2px;
background:var(--c)}
.c0{--c:var(--s0)}.c1{--c:var(--s1)}.c2{--c:var(--s2)}.c3{--c:var(--s3)}
.bar{display:flex;gap:1px;height:.75rem;border-radius:2px;overflow:hidden}
.bar i{display:block;background:var(--c);min-width:1px}
.wide tbody th{width:60%}
.wide thead th+th{white-space:normal;min-width:8rem}
.wide thead th:last-child{min-width:4.5rem}
.wide .cell{display:grid;grid-template-columns:minmax(8rem,14rem) 1fr;gap:0 1.25rem;align-items:start}
.wide .bar{margin-top:.375rem}
.wide tbody tr+tr>*,.dense tbody tr+tr>*{border-top:0}
.wide tbody tr>*{padding-top:.25rem;padding-bottom:.25rem}
.dense{columns:19rem;column-gap:2.5rem}
.dense table{break-inside:avoid;margin-bottom:1.75rem;font-size:.875rem}
.dense caption{padding-bottom:.25rem;border-bottom:1px solid var(--line);margin-bottom:.25rem}
.dense caption .soft{font-weight:400}
.dense tbody tr{position:relative}
.dense tbody th,.dense tbody td{padding-top:.25rem;padding-bottom:.625rem}
.dense td{width:1%}
.dense .bar{position:absolute;left:0;right:0;bottom:.125rem;height:.375rem}
.id{color:var(--soft);font-size:.8125rem;margin-right:.5em}
details{margin-top:1.5rem;border-top:1px solid var(--line)}
details>summary{padding:.75rem 0;cursor:pointer;font-weight:650}
details+details{margin-top:0}
.sheets{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(21rem,100%),1fr));gap:1.75rem 2rem}
.sheets.few{grid-template-columns:repeat(auto-fill,minmax(13rem,1fr))}
figcaption{font-size:.9375rem;line-height:1.35;margin-bottom:.4375rem}
figcaption .soft{font-size:.8125rem;white-space:nowrap}
.tiles{display:grid;grid-template-columns:repeat(5,minmax(0,4rem));gap:.25rem}
.tile{display:block;width:100%;height:auto;aspect-ratio:1;object-fit:contain;background:var(--track);border-radius:2px}
.tile.small{image-rendering:pixelated}
.groups{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(21rem,100%),1fr));gap:1.5rem 2rem;
list-style:none;margin-top:1rem}
.groups>li{display:grid;grid-template-columns:4rem minmax(0,1fr);gap:0 1rem;align-items:start}
.groups ul{list-style:none;font-size:.875rem;line-height:1.4}
.groups ul li{margin-top:.25rem}
.tag{font-size:.8125rem;font-weight:650;margin-left:.5em;white-space:nowrap}
.range{display:block;position:relative;height:.75rem;min-width:4rem;background:var(--track);border-radius:2px}
.range i{position:absolute;top:0;bottom:0;background:var(--c);opacity:.45}
.range b{position:absolute;top:-.125rem;bottom:-.125rem;width:3px;margin-left:-1.5px;background:var(--c)}
.red{--c:var(--red)}.green{--c:var(--green)}.blue{--c:var(--blue)}
.ranges td:last-child{width:50%;min-width:0}
.hist td:last-child{width:60%}
.hist td,.hist th,.ranges td,.ranges th{vertical-align:middle}
.options{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.375rem 1.5rem;font-size:.9375rem}
.options dt{color:var(--soft)}
footer{margin-top:4rem;padding-top:1rem;border-top:1px solid var(--line);color:var(--soft);font-size:.875rem}
.vh{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media (max-width:40rem){
body{padding-top:1.75rem}
section{margin-top:3rem}
th,td{padding-left:.875rem}
.figures{grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem 1.5rem}
.figures dd{font-size:1.375rem}
.wide thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.wide tbody tr{display:flex;flex-wrap:wrap;align-items:baseline;gap:0 .875rem;padding:.25rem 0}
.wide tbody th,.wide .cell{display:contents}
.wide .called{flex:1 1 8rem;order:1}
.wide.many .called{flex:1 0 100%}
.wide.many td:last-child{margin-left:auto}
.wide tbody td{order:2;padding:0;min-width:4ch}
.wide td.part{color:var(--soft);font-size:.875rem}
.wide td.part::before{content:"";display:inline-block;width:.5em;height:.5em;margin-right:.375em;border-radius:2px;
background:var(--c);vertical-align:.1em}
.wide .bar{order:3;flex:0 0 100%;height:.5rem;margin-top:.25rem}
.pairs td{white-space:normal;min-width:4.5rem}
.options{grid-template-columns:1fr}
.options dt{margin-top:.5rem}
}
@media print{
@page{margin:15mm}
:root{--paper:#fff;--card:#fff;print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{padding:0;max-width:none;font-size:10pt}
nav{display:none}
section{margin-top:2rem}
h2,h3,caption,thead{break-after:avoid}
figure,tr,.note,.groups>li{break-inside:avoid}
.scroll{overflow:visible;background:none}
.scroll table{font-size:9pt}
.scroll th,.scroll td{white-space:normal}
.scroll th+th,.scroll td{padding-left:.75rem}
.scroll th:first-child,.scroll td.text{min-width:0}
.sheets{grid-template-columns:repeat(3,minmax(0,1fr))}
a{color:inherit;text-decoration:none}
}
"""
