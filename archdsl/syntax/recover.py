def recover(run, tokens, at):
    from archdsl.source import Span
    tok=tokens[at]
    run.fault("A0101", f"unexpected {tok[1]!r}", tok[2], tok[3])
    return -1
