"""The stand-in for a provider of realtime voice: OpenAI's Realtime (GA) over a WebSocket on loopback.

server (who may, links) ──► link (the protocol) ──► answer (what is said)
                              ├─► shape: what a configuration may be
                              ├─► hearing: turns by silence, over the audio that came
                              └─► cues: what goes wrong, and when
"""
