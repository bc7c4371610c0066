import pytest
import torch

from coverslip.errors import ConfigError, WeightsError
from coverslip.models.networks import adapt_filters, adapt_numbers, check_architecture, create_network, input_facts, load_state


def test_an_unknown_backbone_is_named_with_the_near_one() -> None:
    with pytest.raises(ConfigError, match=r"'resnt18' is not a known architecture\. Did you mean 'resnet18'\?.*list_models"):
        check_architecture("resnt18")
    with pytest.raises(ConfigError, match="not a known architecture"):
        check_architecture("resnet18.no_such_tag")
    check_architecture("resnet18.a1_in1k")


def test_constructor_arguments_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="no_such_argument"):
        create_network("resnet18", channels=3, size=(64, 64), arguments={"no_such_argument": 1})
    with pytest.raises(ConfigError, match="takes no arguments"):
        create_network("small_30k", channels=3, size=(64, 64), arguments={"width": 1})
    with pytest.raises(ConfigError, match="63 pixels a side"):
        create_network("alexnet_grey", channels=1, size=(62, 224), arguments={})


def test_grey_filters_answer_as_the_rgb_copy() -> None:
    filters, grey = torch.randn(8, 3, 3, 3, dtype=torch.float64), torch.randn(2, 1, 9, 9, dtype=torch.float64)
    convolve = torch.nn.functional.conv2d
    expected = convolve(grey.expand(-1, 3, -1, -1), filters, padding=1)
    torch.testing.assert_close(convolve(grey, adapt_filters(filters, 1, "sum"), padding=1), expected)
    torch.testing.assert_close(convolve(grey, adapt_filters(filters, 1, "mean"), padding=1), expected / 3)


@pytest.mark.parametrize("channels", [2, 4, 5, 6])
def test_other_channels_repeat_the_filters_in_turn(channels: int) -> None:
    filters = torch.randn(8, 3, 5, 5)
    adapted = adapt_filters(filters, channels)
    assert adapted.shape == (8, channels, 5, 5)
    for plane in range(channels):
        torch.testing.assert_close(adapted[:, plane], filters[:, plane % 3] * 3 / channels)


def test_filters_of_grey_weights_for_colour() -> None:
    filters = torch.randn(8, 1, 3, 3)
    torch.testing.assert_close(adapt_filters(filters, 3).sum(1, keepdim=True), filters)


def test_numbers_follow_the_filters() -> None:
    assert adapt_numbers((0.0,), 4) == (0.0,) * 4
    assert adapt_numbers((0.1, 0.2, 0.3), 3) == (0.1, 0.2, 0.3)


def test_input_facts() -> None:
    assert input_facts("resnet18").mean == (0.485, 0.456, 0.406)
    assert input_facts("inception_resnet_v2").input_size == (3, 299, 299)
    assert input_facts("small_200k").std == (1.0,)


def test_load_state_names_what_is_missing_unexpected_and_misshapen() -> None:
    network = create_network("small_30k", channels=1, size=(32, 32), arguments={})
    state = network.state_dict()
    state["surplus.weight"] = state.pop("stem.0.weight")
    state["last.0.weight"] = torch.zeros(7, 24, 1, 1)
    with pytest.raises(WeightsError) as caught:
        load_state(network, state, planes=1, channels=1, source="weights.safetensors")
    for piece in ("weights.safetensors", "1 missing (stem.0.weight)", "1 unexpected (surplus.weight)", "last.0.weight (7, 24, 1, 1)"):
        assert piece in str(caught.value)


def test_only_the_first_layer_is_adapted() -> None:
    grey = create_network("small_30k", channels=1, size=(32, 32), arguments={})
    five = create_network("small_30k", channels=5, size=(32, 32), arguments={})
    load_state(five, grey.state_dict(), planes=1, channels=5)
    differing = [name for name, tensor in five.state_dict().items() if tensor.shape != grey.state_dict()[name].shape]
    assert differing == ["stem.0.weight"]
    images = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(five.eval()(images.expand(-1, 5, -1, -1)), grey.eval()(images))


def test_the_classifier_of_a_published_state_is_left_off() -> None:
    network = create_network("mobilenetv2_035", channels=3, size=(64, 64), arguments={})
    state = {**network.state_dict(), "classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.zeros(1000)}
    load_state(network, state, planes=3, channels=3)


def test_a_vision_transformer_is_resampled_to_another_size() -> None:
    large = create_network("vit_tiny_patch16_224", channels=3, size=(224, 224), arguments={"depth": 1})
    small = create_network("vit_tiny_patch16_224", channels=1, size=(64, 96), arguments={"depth": 1})
    load_state(small, large.state_dict(), planes=3, channels=1)
    assert small.pos_embed.shape == (1, 1 + 4 * 6, 192)
    torch.testing.assert_close(small.pos_embed[:, 0], large.pos_embed[:, 0])
