"""What the measures of generated text are called where people read; the order is that of tables.

    LABELS["token_f1"]      # "token F1"

`arguments.evaluation.ANSWER_METRICS` has the same names: a best checkpoint may go by any of them.
"""

LABELS = {
    "exact_match": "exact match",
    "token_f1": "token F1",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "stopped": "stopped",
    "new_tokens": "new tokens",
}
