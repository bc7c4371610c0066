import pytest
import torch

from coverslip.errors import ConfigError, WeightsError
from coverslip.models.networks import FirstLayer, adapt_filters, adapt_numbers, check_architecture, create_network, input_facts, load_state

HOW: tuple[FirstLayer, ...] = ("repeat", "mean", "zero")


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
        create_network("alexnet_grey", channels=1, size=(64, 64), arguments={"width": 1})
    with pytest.raises(ConfigError, match="63 pixels a side"):
        create_network("alexnet_grey", channels=1, size=(62, 224), arguments={})


def test_grey_filters_answer_as_the_rgb_copy() -> None:
    filters, grey = torch.randn(8, 3, 3, 3, dtype=torch.float64), torch.randn(2, 1, 9, 9, dtype=torch.float64)
    convolve = torch.nn.functional.conv2d
    expected = convolve(grey.expand(-1, 3, -1, -1), filters, padding=1)
    torch.testing.assert_close(convolve(grey, adapt_filters(filters, 1, "repeat"), padding=1), expected)
    torch.testing.assert_close(convolve(grey, adapt_filters(filters, 1, "mean"), padding=1), expected / 3)


@pytest.mark.parametrize("channels", [2, 4, 5, 6])
def test_other_channels_repeat_the_filters_in_turn(channels: int) -> None:
    filters = torch.randn(8, 3, 5, 5)
    adapted = adapt_filters(filters, channels)
    assert adapted.shape == (8, channels, 5, 5)
    for plane in range(channels):
        torch.testing.assert_close(adapted[:, plane], filters[:, plane % 3] * 3 / channels)


@pytest.mark.parametrize("channels", [4, 5, 7])
@pytest.mark.parametrize("how", ["mean", "zero"])
def test_planes_beyond_the_known_ones_get_their_mean_or_nothing(channels: int, how: FirstLayer) -> None:
    filters = torch.randn(8, 3, 5, 5)
    adapted = adapt_filters(filters, channels, how)
    assert adapted.shape == (8, channels, 5, 5)
    assert torch.equal(adapted[:, :3], filters)
    for plane in range(3, channels):
        torch.testing.assert_close(
            adapted[:, plane], (filters[:, 0] + filters[:, 1] + filters[:, 2]) / 3 if how == "mean" else 0 * filters[:, 0]
        )


@pytest.mark.parametrize("how", ["repeat", "mean", "zero"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_adapted_filters_leave_the_given_ones_alone(channels: int, how: FirstLayer) -> None:
    filters = torch.randn(8, 3, 5, 5)
    before = filters.clone()
    adapted = adapt_filters(filters, channels, how)
    assert adapted.shape[1] == channels
    if channels != 3:
        adapted.add_(1)
    assert torch.equal(filters, before)
    if channels < 3 and how == "zero":
        assert torch.equal(adapt_filters(filters, channels, how), adapt_filters(filters, channels, "repeat"))


@pytest.mark.parametrize("extra", [1, 3])
def test_channels_that_start_at_zero_leave_the_answer_on_colour_as_it_was(extra: int) -> None:
    colour = create_network("resnet18", channels=3, size=(64, 64), arguments={}).eval()
    more = create_network("resnet18", channels=3 + extra, size=(64, 64), arguments={})
    load_state(more, colour.state_dict(), planes=3, channels=3 + extra, how="zero")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = colour(images)
        for beyond in (torch.zeros(2, extra, 64, 64), torch.randn(2, extra, 64, 64) * 10):
            torch.testing.assert_close(more.eval()(torch.cat([images, beyond], dim=1)), expected)
    assert expected.std() > 0
    mean = create_network("resnet18", channels=3 + extra, size=(64, 64), arguments={}).eval()
    load_state(mean, colour.state_dict(), planes=3, channels=3 + extra, how="mean")
    with torch.no_grad():
        assert not torch.allclose(mean(torch.cat([images, torch.randn(2, extra, 64, 64) * 10], dim=1)), expected)


def test_filters_of_grey_weights_for_colour() -> None:
    filters = torch.randn(8, 1, 3, 3)
    torch.testing.assert_close(adapt_filters(filters, 3).sum(1, keepdim=True), filters)


def test_numbers_follow_the_filters() -> None:
    assert adapt_numbers((0.0,), 4) == (0.0,) * 4
    for how in HOW:
        assert adapt_numbers((0.1, 0.2, 0.3), 3, how) == (0.1, 0.2, 0.3)
        assert adapt_numbers((0.1, 0.2, 0.3), 1, how) == pytest.approx((0.2,))
        assert adapt_numbers((0.1, 0.2, 0.3), 2, how) == (0.1, 0.2)
    assert adapt_numbers((0.1, 0.2, 0.3), 5) == (0.1, 0.2, 0.3, 0.1, 0.2)
    for how in ("mean", "zero"):
        assert adapt_numbers((0.1, 0.2, 0.3), 5, how) == pytest.approx((0.1, 0.2, 0.3, 0.2, 0.2))


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
