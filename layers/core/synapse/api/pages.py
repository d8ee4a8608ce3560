"""The documentation pages. All they load comes from this server: they work with no internet."""

from __future__ import annotations

from functools import cache
from importlib import resources

ASSETS = {
    "swagger-ui-bundle.min.js": "text/javascript; charset=utf-8",
    "swagger-ui.min.css": "text/css; charset=utf-8",
    "redoc.standalone.js": "text/javascript; charset=utf-8",
}
"""Servable files and their types. Swagger UI's come with Powertools, ReDoc's with us."""

HTML = "text/html; charset=utf-8"
OF_THIS_SERVER = {
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
}
"""Header that has a browser fetch nothing from elsewhere: ReDoc would show its maker's logo, whose
server then saw who reads here. All else is as it would be."""

# Addresses are relative, so that the pages also work behind API Gateway's /<stage> prefix. From
# /api/docs/, which is routed like /api/docs, they lead nowhere: such a page goes to the other.
SWAGGER_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Synapse API</title>
  <script>
    if (location.pathname.endsWith("/")) location.replace("../docs" + location.hash);
  </script>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="static/swagger-ui.min.css">
</head>
<body>
  <div id="docs"></div>
  <script src="static/swagger-ui-bundle.min.js"></script>
  <script>
    SwaggerUIBundle({url: "../openapi.json", dom_id: "#docs", deepLinking: true});
  </script>
</body>
</html>
"""

REDOC_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Synapse API reference</title>
  <script>
    if (location.pathname.endsWith("/")) location.replace("../redoc" + location.hash);
  </script>
  <link rel="icon" href="data:,">
  <style>body { margin: 0; }</style>
</head>
<body>
  <div id="docs"></div>
  <script src="static/redoc.standalone.js"></script>
  <script>
    Redoc.init("../openapi.json", {disableSearch: false}, document.getElementById("docs"));
  </script>
</body>
</html>
"""


@cache
def asset_text(file: str) -> str:
    """The text of one of `ASSETS`."""
    package = "aws_lambda_powertools.event_handler.openapi.swagger_ui"
    if file.startswith("redoc"):
        package = "synapse.api.static"
    return resources.files(package).joinpath(file).read_text(encoding="utf-8")
