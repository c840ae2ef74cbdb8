import CoreGraphics
import CoreML
import CoreVideo
import Foundation
import Vision

/// The network of this package.
public final class Classifier {
    public let model: Model
    private let network: MLModel
    private let prepare: Prepare
    private let given: MLFeatureDescription

    public init() async throws {
        let folder = Bundle.module.url(forResource: "Network", withExtension: nil)!
        model = try JSONDecoder().decode(Model.self, from: Data(contentsOf: folder.appendingPathComponent("model.json")))
        let compiled = try await MLModel.compileModel(at: folder.appendingPathComponent(model.file))
        network = try MLModel(contentsOf: compiled)
        prepare = Prepare(model: model)
        guard let only = network.modelDescription.inputDescriptionsByName.values.first else {
            throw Fault(description: "the network takes no input")
        }
        given = only
    }

    /// The best classes of an image file.
    public func best(_ url: URL, count: Int = 5) throws -> [Guess] {
        try best(readImage(url, channels: model.channels), count)
    }

    /// The best classes of an upright image, such as a frame of the camera.
    public func best(_ image: CGImage, count: Int = 5) throws -> [Guess] {
        try best(pixels(of: image, channels: model.channels), count)
    }

    private func best(_ image: Pixels, _ count: Int) throws -> [Guess] {
        let crop = try prepare.fit(image)
        let shares = try given.type == .image ? seen(pixelBuffer(crop)) : computed(crop)
        let order = shares.indices.sorted { (shares[$0], $1) > (shares[$1], $0) }
        return order.prefix(count).map {
            Guess(index: $0, label: model.labels.isEmpty ? "class \($0)" : model.labels[$0], probability: shares[$0])
        }
    }

    /// Probabilities of a file that takes an image; it has the right size already, so Vision resamples nothing.
    private func seen(_ buffer: CVPixelBuffer) throws -> [Double] {
        let request = VNCoreMLRequest(model: try VNCoreMLModel(for: network))
        request.imageCropAndScaleOption = .scaleFill
        try VNImageRequestHandler(cvPixelBuffer: buffer).perform([request])
        if let classes = request.results as? [VNClassificationObservation] {
            let named = Dictionary(classes.map { ($0.identifier, Double($0.confidence)) }) { first, _ in first }
            return model.labels.map { named[$0] ?? 0 }
        }
        guard let found = request.results?.first as? VNCoreMLFeatureValueObservation,
              let array = found.featureValue.multiArrayValue
        else { throw Fault(description: "the network gives no scores") }
        return probabilities(array)
    }

    /// Probabilities of a file that takes an array of numbers.
    private func computed(_ crop: Pixels) throws -> [Double] {
        let type = given.multiArrayConstraint?.dataType ?? .float32
        let array = try MLMultiArray(shape: model.input.shape.map { NSNumber(value: $0) }, dataType: type)
        let values = prepare.values(crop)
        for i in 0..<array.count { array[i] = NSNumber(value: values[i % values.count]) }  // a batch gets copies
        let answer = try network.prediction(from: MLDictionaryFeatureProvider(dictionary: [given.name: array]))
        if let name = network.modelDescription.predictedProbabilitiesName,
           let named = answer.featureValue(for: name)?.dictionaryValue as? [String: NSNumber] {
            return model.labels.map { named[$0]?.doubleValue ?? 0 }
        }
        guard let scores = answer.featureNames.compactMap({ answer.featureValue(for: $0)?.multiArrayValue }).first else {
            throw Fault(description: "the network gives no scores")
        }
        return probabilities(scores)
    }

    private func probabilities(_ array: MLMultiArray) -> [Double] {
        let scores = (0..<(array.count / model.input.shape[0])).map { array[$0].doubleValue }
        if model.output == "percent" { return scores.map { $0 / 100 } }
        if model.output != "logits" { return scores }
        let most = scores.max() ?? 0
        let powers = scores.map { exp($0 - most) }
        let sum = powers.reduce(0, +)
        return powers.map { $0 / sum }
    }

    private func pixelBuffer(_ crop: Pixels) throws -> CVPixelBuffer {
        let grey = crop.channels == 1
        let kind = grey ? kCVPixelFormatType_OneComponent8 : kCVPixelFormatType_32BGRA
        var made: CVPixelBuffer?
        CVPixelBufferCreate(kCFAllocatorDefault, crop.width, crop.height, kind, nil, &made)
        guard let buffer = made else { throw Fault(description: "no memory for an image") }
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        let rows = CVPixelBufferGetBaseAddress(buffer)!.assumingMemoryBound(to: UInt8.self)
        let stride = CVPixelBufferGetBytesPerRow(buffer)
        for y in 0..<crop.height {
            for x in 0..<crop.width {
                let from = (y * crop.width + x) * crop.channels
                if grey {
                    rows[y * stride + x] = crop.bytes[from]
                } else {
                    let to = y * stride + 4 * x
                    for c in 0..<3 { rows[to + c] = crop.bytes[from + 2 - c] }
                    rows[to + 3] = 255
                }
            }
        }
        return buffer
    }
}
