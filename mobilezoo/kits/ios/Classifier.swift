import CoreGraphics
import Foundation

public struct Guess {
    public let index: Int
    public let label: String
    public let probability: Double
}

/// Names the classes of images, by the network of this package.
public final class Classifier {
    private let network: Network
    public var model: Model { network.model }

    public init() async throws { network = try await Network() }

    /// The best classes of an image file.
    public func best(_ url: URL, count: Int = 5) throws -> [Guess] {
        try best(readImage(url, channels: model.channels), count)
    }

    /// The best classes of an upright image, such as a frame of the camera.
    public func best(_ image: CGImage, count: Int = 5) throws -> [Guess] {
        try best(pixels(of: image, channels: model.channels), count)
    }

    private func best(_ image: Pixels, _ count: Int) throws -> [Guess] {
        let shares = probabilities(try network.answer(image))
        let order = shares.indices.sorted { (shares[$0], $1) > (shares[$1], $0) }
        return order.prefix(count).map { Guess(index: $0, label: model.label($0), probability: shares[$0]) }
    }

    private func probabilities(_ answer: [Float]) -> [Double] {
        let scores = answer.map { Double($0) }
        if model.output == "percent" { return scores.map { $0 / 100 } }
        if model.output != "logits" { return scores }
        let most = scores.max() ?? 0
        let powers = scores.map { exp($0 - most) }
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }
}
