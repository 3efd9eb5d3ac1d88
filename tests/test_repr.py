"""What a loaded model looks like in a notebook or a terminal."""

import icl


def test_a_loaded_model_introduces_itself_in_a_line_or_two():
    trained = icl.load("workhorse-3")
    assert len(repr(trained)) < 120
    for word in ("workhorse-3", trained.label, "5 seeds", f"{trained.risks.min():.4g}"):
        assert word in repr(trained)
    for model in (trained.model, trained.model.on_tokens()):
        assert len(repr(model)) < 160
        assert repr(model).startswith(f"{type(model).__name__}(5 models of Architecture(d=8")
