import Foundation

/// What is recorded of the network: how an image becomes its input, and what its output means.
public struct Model: Decodable {
    struct Quantization: Decodable {
        let scale: Double
        let zero_point: Int
    }

    struct Input: Decodable {
        let shape: [Int]
        let layout: String
        let dtype: String
        let colors: String
    }

    struct Preprocessing: Decodable {
        let mean: [Double]
        let std: [Double]
        let interpolation: String
        let crop_pct: Double
        let crop_mode: String
    }

    struct Boxes: Decodable {
        let score: Double  // probability from which a box counts
        let overlap: Double  // intersection over union of two boxes of a class that both count
    }

    let file: String
    let task: String?  // detect or segment; none: a score for each class
    let output_shape: [Int]?  // of one image's boxes or mask
    let boxes: Boxes?
    let size: [Int]
    let input: Input
    let preprocessing: Preprocessing
    let output: String
    public let labels: [String]

    var height: Int { size[0] }
    var width: Int { size[1] }
    var channels: Int { preprocessing.mean.count }

    /// The name of a class.
    public func label(_ index: Int) -> String { index < labels.count ? labels[index] : "class \(index)" }
}

struct Fault: Error, CustomStringConvertible {
    let description: String
}
