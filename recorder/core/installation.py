"""Commands that install something, for error messages. They work for a clone and for a package from an index."""

from __future__ import annotations

#: The requirements of the extras of these names. No index needs to have recorder itself.
INSTALL_POSTGRES_DRIVER = "pip install 'asyncpg>=0.30'"
INSTALL_TIKTOKEN = "pip install 'tiktoken>=0.9'"
INSTALL_PRICES = "pip install 'genai-prices>=0.2.3'"
INSTALL_OPENTELEMETRY = "pip install 'opentelemetry-sdk>=1.39' 'opentelemetry-exporter-otlp-proto-http>=1.39'"
INSTALL_SERVER = (
    "pip install 'fastapi>=0.115' 'uvicorn>=0.50' 'uvloop>=0.21' 'httptools>=0.6.4' 'websockets>=15' "
    "'aiohttp>=3.14.1' 'prometheus-client>=0.21' 'python-json-logger>=3.2'"
)
INSTALL_NLP = (
    "pip install 'sentencex>=1.0.32' 'py3langid>=0.4' 'nltk-vader-sentiment>=1.0' 'cloudpickle>=3.1'"
)
UPGRADE = "install a newer version of chat-recorder (in a clone: git pull && pip install .)"
REINSTALL = "install chat-recorder again (in a clone: pip install --force-reinstall .)"
