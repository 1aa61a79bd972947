"""`/v1/realtime`: a voice session that outlives the provider's connections.

A client speaks OpenAI's Realtime protocol to the gateway, and the gateway to the provider. What the provider
accepted is kept, and what it forgets is told it again: configuration, tools, items. See docs/voice.md.
"""
