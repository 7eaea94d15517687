"""What `score` says in a ratings file, which `eval.judge` writes and `eval.elo` reads: whose answer was the better one.

Judgement(FIRST)        # the answer that was shown first
"""

FIRST, SECOND, TIE, FAILED = 1, 2, 3, -1
