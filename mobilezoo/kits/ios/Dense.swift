import Foundation

/// A box that was found; its sides are shares 0..1 of the sides of the crop that the network sees.
public struct Box {
    public let index: Int
    public let probability: Float
    public let left: Float
    public let top: Float
    public let right: Float
    public let bottom: Float
}

/// The class of every pixel of the crop that the network sees, row by row.
public struct Mask {
    public let rows: Int
    public let columns: Int
    public let classes: [Int]

    /// The classes that are there and their shares 0..1, largest first.
    public var areas: [(index: Int, share: Double)] {
        var counts = [Int](repeating: 0, count: (classes.max() ?? 0) + 1)
        for index in classes { counts[index] += 1 }
        let present = counts.indices.filter { counts[$0] > 0 }.sorted { (counts[$0], $1) > (counts[$1], $0) }
        return present.map { (index: $0, share: Double(counts[$0]) / Double(classes.count)) }
    }
}

/// Where the crop lies in an image, in pixels of the image; it may reach beyond it.
public struct Place {
    public let left: Double
    public let top: Double
    public let width: Double
    public let height: Double
}

private let most = 100  // boxes of an image

/// The boxes of one image, most probable first, without those that cover a better one.
func boxes(of answer: [Float], _ model: Model) throws -> [Box] {
    guard let shape = model.output_shape, let limits = model.boxes, answer.count == shape[0] * shape[1] else {
        throw Fault(description: "the file answers with another layout")
    }
    var found: [Box] = []
    for place in 0..<shape[0] {
        let row = Array(answer[(place * shape[1])..<((place + 1) * shape[1])])
        let best = bestIndex(row[4...])
        let box = Box(
            index: best, probability: row[4 + best], left: row[0], top: row[1], right: row[2], bottom: row[3]
        )
        if box.right > box.left, box.bottom > box.top, box.probability >= Float(limits.score) { found.append(box) }
    }
    let order = found.indices.sorted { (found[$0].probability, $1) > (found[$1].probability, $0) }
    var kept: [Box] = []
    for box in order.map({ found[$0] }) where kept.count < most {
        if kept.allSatisfy({ $0.index != box.index || covered(box, $0) <= limits.overlap }) { kept.append(box) }
    }
    return kept
}

/// Intersection over union of two boxes.
private func covered(_ a: Box, _ b: Box) -> Double {
    let width = Double(min(a.right, b.right) - max(a.left, b.left))
    let height = Double(min(a.bottom, b.bottom) - max(a.top, b.top))
    let both = max(0, width) * max(0, height)
    let areas = (a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top)
    let either = Double(areas) - both
    return either > 0 ? both / either : 0
}

/// The best class of every pixel, of equal ones the first.
func mask(of answer: [Float], _ model: Model) throws -> Mask {
    guard let shape = model.output_shape, shape.count == 3, answer.count == shape[0] * shape[1] * shape[2] else {
        throw Fault(description: "the file answers with another layout")
    }
    let count = shape[2]
    let classes = (0..<(shape[0] * shape[1])).map { bestIndex(answer[($0 * count)..<(($0 + 1) * count)]) }
    return Mask(rows: shape[0], columns: shape[1], classes: classes)
}

private func bestIndex(_ values: ArraySlice<Float>) -> Int {
    var best = values.startIndex
    for i in values.indices where values[i] > values[best] { best = i }
    return best - values.startIndex
}

/// Where the crop of an image of a size lies.
func placement(width: Int, height: Int, _ prepare: Prepare) -> Place {
    let (toHeight, toWidth) = prepare.resizedSize(height, width)
    let x = Double(width) / Double(toWidth)
    let y = Double(height) / Double(toHeight)
    return Place(
        left: Double(prepare.cropStart(toWidth, prepare.model.width)) * x,
        top: Double(prepare.cropStart(toHeight, prepare.model.height)) * y,
        width: Double(prepare.model.width) * x,
        height: Double(prepare.model.height) * y
    )
}
