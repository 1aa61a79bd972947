"""Who may: API keys for producers, tickets and cookies for browsers, origins, limits of rate.

Unknown and forbidden look the same from outside: nobody learns what another has.
"""
