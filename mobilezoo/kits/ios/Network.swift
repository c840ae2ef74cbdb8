import CoreGraphics
import CoreML
import CoreVideo
import Foundation
import Vision

/// The network of this package. Not safe for several threads: use it from one at a time.
final class Network {
    let model: Model
    private let network: MLModel
    private let prepare: Prepare
    private let given: MLFeatureDescription

    init() async throws {
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

    /// What the file answers for an upright image, as real numbers.
    func answer(_ image: Pixels) throws -> [Float] {
        let crop = try prepare.fit(image)
        let numbers = try given.type == .image ? seen(pixelBuffer(crop)) : computed(crop)
        guard numbers.allSatisfy({ $0.isFinite }) else {
            throw Fault(description: "the network answers with numbers that are not finite")
        }
        return numbers
    }

    /// The answer of a file that takes an image; it has the right size already, so Vision resamples nothing.
    private func seen(_ buffer: CVPixelBuffer) throws -> [Float] {
        let request = VNCoreMLRequest(model: try VNCoreMLModel(for: network))
        request.imageCropAndScaleOption = .scaleFill
        try VNImageRequestHandler(cvPixelBuffer: buffer).perform([request])
        if let classes = request.results as? [VNClassificationObservation] {
            let named = Dictionary(classes.map { ($0.identifier, $0.confidence) }) { first, _ in first }
            return model.labels.map { named[$0] ?? 0 }
        }
        guard let found = request.results?.first as? VNCoreMLFeatureValueObservation,
              let array = found.featureValue.multiArrayValue
        else { throw Fault(description: "the network gives no numbers") }
        return numbers(array)
    }

    /// The answer of a file that takes an array of numbers.
    private func computed(_ crop: Pixels) throws -> [Float] {
        let type = given.multiArrayConstraint?.dataType ?? .float32
        let array = try MLMultiArray(shape: model.input.shape.map { NSNumber(value: $0) }, dataType: type)
        let values = prepare.values(crop)
        for i in 0..<array.count { array[i] = NSNumber(value: values[i % values.count]) }  // a batch gets copies
        let answer = try network.prediction(from: MLDictionaryFeatureProvider(dictionary: [given.name: array]))
        if let name = network.modelDescription.predictedProbabilitiesName,
           let named = answer.featureValue(for: name)?.dictionaryValue as? [String: NSNumber] {
            return model.labels.map { named[$0]?.floatValue ?? 0 }
        }
        guard let array = answer.featureNames.compactMap({ answer.featureValue(for: $0)?.multiArrayValue }).first else {
            throw Fault(description: "the network gives no numbers")
        }
        return numbers(array)
    }

    /// Those of the first image of a batch.
    private func numbers(_ array: MLMultiArray) -> [Float] {
        Array(MLShapedArray<Float>(converting: array).scalars.prefix(array.count / model.input.shape[0]))
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
