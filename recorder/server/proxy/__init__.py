"""Providers' paths: the recording proxy, and replays that answer in a provider's place; docs/proxy.md."""
