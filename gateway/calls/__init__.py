"""Practice calls: a page, a telephone (Twilio Media Streams) and a voice session, for one call.

    page  ◄── frontend ◄── events in Postgres ──► media ◄──► telephone
                job.config ──►                      │
                                                    ▼ a voice session, as for any other client

Both sides may be at different gateways: they meet in the call's row and its events. See docs/voice.md.
"""
