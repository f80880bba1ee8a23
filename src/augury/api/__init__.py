"""HTTP under `/v1`: the command line's nouns and verbs. The only asynchronous package."""
